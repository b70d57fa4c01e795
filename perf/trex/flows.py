"""TRex, stateless: UDP flows by CSIT's scheme, at any rate. From port 0 to the gateway's inside, from port 1 to its outside.

    start -f perf/trex/flows.py -m 50% -t --flows 64512 --size 64

63 ports for each inside host. Toward a translating gateway only port 0 has flows of its own: what port 1 would have to send to
is known after the translation only, and TRex does not learn it. Against a router both directions make sense (--both).
"""

import argparse

from trex_stl_lib.api import IP, STLVM, UDP, Ether, STLPktBuilder, STLStream, STLTXCont

PORTS_PER_HOST = 63
FIRST_PORT = 1024
IMIX = ((64, 28), (570, 16), (1518, 4))
"""CSIT's mix: lengths of frames, and how many of 48 have each."""


def host(first: str, number: int) -> str:
    """The address `number` after `first`."""
    a, b, c, d = (int(part) for part in first.split("."))
    value = (a << 24 | b << 16 | c << 8 | d) + number
    return ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0))


class Profile:
    """The streams."""

    def stream(self, source: str, destination: str, flows: int, size: int, share: float) -> STLStream:
        """One stream of frames of `size` bytes, their check sequence included."""
        packet = Ether() / IP(src=source, dst=destination) / UDP(sport=FIRST_PORT, dport=FIRST_PORT, chksum=0)
        padding = b"x" * max(0, size - 4 - len(packet))
        hosts = max(1, flows // PORTS_PER_HOST)
        last_port = FIRST_PORT + min(flows, PORTS_PER_HOST) - 1
        vm = STLVM()
        vm.tuple_var(
            name="flow", ip_min=source, ip_max=host(source, hosts - 1), port_min=FIRST_PORT, port_max=last_port
        )
        vm.write(fv_name="flow.ip", pkt_offset="IP.src")
        vm.write(fv_name="flow.port", pkt_offset="UDP.sport")
        # Both checksums are written anew; a gateway between address families must not be given UDP without one.
        vm.fix_chksum_hw(l3_offset="IP", l4_offset="UDP", l4_type=11)
        return STLStream(packet=STLPktBuilder(pkt=packet / padding, vm=vm), mode=STLTXCont(percentage=100 * share))

    def get_streams(self, direction, tunables, **kwargs):
        """The streams of a port."""
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
        parser.add_argument("--flows", type=int, default=64_512)
        parser.add_argument("--size", default="64", help="length of the frames, or imix")
        parser.add_argument("--both", action="store_true", help="traffic from port 1, too: for a router")
        options = parser.parse_args(tunables)
        if direction == 1 and not options.both:
            return []
        ends = ("16.0.0.1", "48.0.0.1") if direction == 0 else ("48.0.0.1", "16.0.0.1")
        sizes = IMIX if options.size == "imix" else ((int(options.size), 1),)
        total = sum(count for _, count in sizes)
        return [self.stream(*ends, options.flows, size, count / total) for size, count in sizes]


def register():
    """What TRex asks for."""
    return Profile()
