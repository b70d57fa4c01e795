"""TRex, with state (ASTF): connections per second, or connections at a time. Both ends are real TCP or UDP, so it works through
a translation, and a wrong checksum or byte is noticed.

    ./t-rex-64 -i --astf -c 4
    start -f perf/trex/connections.py -m 1 -t --cps 100000 --protocol udp
    start -f perf/trex/connections.py -m 1 -t --cps 100000 --concurrent 1000000

The rate of connections is `--cps` times the multiplier. Without `--concurrent` each connection is one request and one answer,
and ends; with it each stays open, silent, until there are so many.
"""

import argparse

from trex.astf.api import (
    ASTFAssociationRule,
    ASTFIPGen,
    ASTFIPGenDist,
    ASTFIPGenGlobal,
    ASTFProfile,
    ASTFProgram,
    ASTFTCPClientTemplate,
    ASTFTCPServerTemplate,
    ASTFTemplate,
)

REQUEST, ANSWER = "q" * 18, "a" * 18
"""They make frames of 64 bytes with UDP."""
PORT = 8080
KEEP_MS = 300_000
"""How long an open connection may be silent. The gateway's timers must be longer (perf/bare-metal/nat44.yaml)."""


class Profile:
    """The connections."""

    def programs(self, udp: bool, keep: bool) -> tuple[ASTFProgram, ASTFProgram]:
        """What client and server do."""
        client, server = ASTFProgram(stream=not udp), ASTFProgram(stream=not udp)
        if udp:
            if keep:
                client.set_keepalive_msg(KEEP_MS)
                server.set_keepalive_msg(KEEP_MS)
            client.send_msg(REQUEST)
            server.recv_msg(1)
            server.send_msg(ANSWER)
            client.recv_msg(1)
        else:
            client.send(REQUEST)
            server.recv(len(REQUEST))
            server.send(ANSWER)
            client.recv(len(ANSWER))
        if keep:
            client.delay(KEEP_MS * 1000)
            server.delay(KEEP_MS * 1000)
        return client, server

    def get_profile(self, tunables, **kwargs):
        """The profile."""
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
        parser.add_argument("--cps", type=float, default=1000)
        parser.add_argument("--concurrent", type=int, default=0)
        parser.add_argument("--protocol", choices=("tcp", "udp"), default="tcp")
        options = parser.parse_args(tunables)
        addresses = ASTFIPGen(
            glob=ASTFIPGenGlobal(ip_offset="0.0.0.0"),
            dist_client=ASTFIPGenDist(ip_range=["16.0.0.1", "16.0.255.254"], distribution="seq"),
            dist_server=ASTFIPGenDist(ip_range=["48.0.0.1", "48.0.255.254"], distribution="seq"),
        )
        client, server = self.programs(options.protocol == "udp", options.concurrent > 0)
        limit = {"limit": options.concurrent} if options.concurrent else {}
        template = ASTFTemplate(
            client_template=ASTFTCPClientTemplate(program=client, ip_gen=addresses, port=PORT, cps=options.cps, **limit),
            server_template=ASTFTCPServerTemplate(program=server, assoc=ASTFAssociationRule(port=PORT)),
        )
        return ASTFProfile(default_ip_gen=addresses, templates=template)


def register():
    """What TRex asks for."""
    return Profile()
