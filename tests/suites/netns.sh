# Release binaries between real programs, each side in a network namespace of its own.
# shellcheck shell=bash disable=SC2154

# suite netns: the release binaries with nginx, dnsmasq, curl, iperf3, nc and openssl in four network namespaces; as root
suite_netns() {
    if ! lab_programs; then
        skip netns "$lacking"
    elif release_binaries; then
        CORINTH_BIN_DIR=$(realpath "$target")/release cargo_tests 1800 netns -p corinth-tests --test netns
    fi
}

# Can laboratories be made here?
lab_programs() {
    lacking='network namespaces need root'
    ((EUID == 0)) && need iproute2:ip nftables:nft nginx-light:nginx curl:curl iperf3:iperf3 netcat-openbsd:nc \
        openssl:openssl wrk:wrk dnsmasq-base:dnsmasq
}
