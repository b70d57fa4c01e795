"""TRex, stateless: a flood. Every frame is of a flow that has not been seen before, or nearly.

    start -f perf/trex/flood.py --port 0 -m 1mpps -t --kind udp

Kinds: `udp` and `syn` from inside make sessions until the table is full; `outside` comes in at port 1 for addresses of the pool,
and should all be dropped as unsolicited.
"""

import argparse

from trex_stl_lib.api import IP, STLVM, TCP, UDP, Ether, STLPktBuilder, STLStream, STLTXCont

INSIDE = ("16.0.0.1", "16.63.255.254")
"""Four million hosts, each with every port: far more flows than any table holds."""
OUTSIDE = ("48.0.0.1", "48.63.255.254")
POOL = "203.0.113.1"


class Profile:
    """The stream."""

    def get_streams(self, direction, tunables, **kwargs):
        """The streams of a port."""
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
        parser.add_argument("--kind", choices=("udp", "syn", "outside"), default="udp")
        kind = parser.parse_args(tunables).kind
        if direction != (1 if kind == "outside" else 0):
            return []
        sources, destination = (OUTSIDE, POOL) if kind == "outside" else (INSIDE, "48.0.0.1")
        layer, name, l4_type = (TCP(dport=80, flags="S"), "TCP", 13) if kind == "syn" else (UDP(dport=4000), "UDP", 11)
        packet = Ether() / IP(src=sources[0], dst=destination) / layer
        padding = b"x" * max(0, 60 - len(packet))
        vm = STLVM()
        vm.var(name="source", min_value=sources[0], max_value=sources[1], size=4, op="random")
        vm.var(name="port", min_value=1024, max_value=65_535, size=2, op="random")
        vm.write(fv_name="source", pkt_offset="IP.src")
        vm.write(fv_name="port", pkt_offset=f"{name}.sport")
        vm.fix_chksum_hw(l3_offset="IP", l4_offset=name, l4_type=l4_type)
        return [STLStream(packet=STLPktBuilder(pkt=packet / padding, vm=vm), mode=STLTXCont(pps=1))]


def register():
    """What TRex asks for."""
    return Profile()
