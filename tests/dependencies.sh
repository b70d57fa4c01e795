#!/bin/bash
# Installs what building, demonstrating and testing Turnpike need on Debian 12; with the word `build`, what building alone
# needs. One question to dpkg, and nothing else when nothing is missing. No service is started, now or at the next boot: the tests run their own tayga, unbound and promtool.
set -euo pipefail

# The programs are for x86-64-v3 (.cargo/config.toml), and so is what cargo runs to build them.
if [[ $(uname -m) == x86_64 && -z ${RUSTFLAGS-} ]] && ! grep -qw avx2 /proc/cpuinfo; then
    echo 'This processor has no AVX2. Build for every x86-64 with RUSTFLAGS="-C target-cpu=x86-64" in the environment.' >&2
    exit 1
fi

# clang for its library: bindgen reads DPDK's headers with it.
packages=(build-essential ca-certificates clang libdpdk-dev pkg-config)
[[ ${1-} == build ]] || packages+=(
    # the laboratory, its clients and servers
    bind9-dnsutils curl ethtool iperf3 iproute2 iptables iputils-ping nftables procps python3 tayga tcpdump traceroute unbound
    # judges
    prometheus python3-jsonschema python3-scapy python3-yaml strace systemd tshark udev
    # the image
    buildah debootstrap
    # processors that are too old
    qemu-user
)

# Rust: any cargo from 1.88 on will do. Debian 12 keeps a recent one for its browsers.
if ! version=$(cargo --version 2>/dev/null) || ! printf '1.88\n%s\n' "${version#cargo }" | sort -CV; then
    packages+=(rustc-web cargo-web rustfmt-web rust-web-clippy)
fi

installed=" $(dpkg-query -W -f '${db:Status-Status}/${Package} ' "${packages[@]}" 2>/dev/null || true)"
missing=()
for package in "${packages[@]}"; do
    [[ $installed == *" installed/$package "* ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

if ((EUID != 0)); then
    echo "missing: ${missing[*]}" >&2
    echo "Run this as root, or install them: apt-get install ${missing[*]}" >&2
    exit 1
fi

# Debian starts the services that it installs, unless this file says no (invoke-rc.d: 101, forbidden by policy).
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q || echo "apt-get update failed: trying with the package lists that are here" >&2
# A machine that has just booted may be busy with its own upgrades.
apt-get -o DPkg::Lock::Timeout=300 install -q -y --no-install-recommends "${missing[@]}" </dev/null
for service in prometheus tayga unbound; do
    [[ " ${missing[*]} " != *" $service "* ]] || update-rc.d "$service" disable
done
