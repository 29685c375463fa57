# QUIC as others speak it, against the release binary of the gateway.
# shellcheck shell=bash disable=SC2154

# suite interop: the cases of the QUIC interop runner that can be seen from outside, by aioquic from PyPI; as root
suite_interop() {
    if ! lab_programs || ! fetch_aioquic; then
        skip interop "$lacking"
    elif release_binaries; then
        CORINTH_AIOQUIC=$aioquic CORINTH_BIN_DIR=$(realpath "$target")/release \
            cargo_tests 900 interop -p corinth-tests --test interop
    fi
}

# Is aioquic there, for the Python there is? Its wheels are fetched into the cache if not, and checked by their hashes.
fetch_aioquic() {
    need python3:python3 python3-pip:pip3 || return 1
    local wheels=tests/interop/requirements.txt
    aioquic=$cache/tools/aioquic-$(python3 -c 'import sys; print(sys.implementation.cache_tag)')-$(
        sha256sum "$wheels" | cut -c 1-12
    )
    [[ ! -e $aioquic ]] || return 0
    printf 'fetching aioquic into %s\n' "$aioquic"
    lacking="aioquic could not be fetched; see $out/aioquic.log"
    rm -rf "$aioquic.new"
    logged 300 aioquic python3 -m pip install --disable-pip-version-check --require-hashes --only-binary :all: \
        --target "$aioquic.new" --requirement "$wheels" && mv "$aioquic.new" "$aioquic"
}
