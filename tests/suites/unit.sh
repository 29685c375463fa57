# Tests that live beside the code, and what people are told to run first.
# shellcheck shell=bash disable=SC2154

# suite unit: unit and property tests of every crate
suite_unit() {
    if $is_quick; then
        # Networks in namespaces, floods of strangers and the whole demo take half of the time, and seldom break.
        cargo_tests 600 unit --workspace --exclude corinth-tests --exclude corinth-wan -- \
            --skip quic_floods --skip quic_frames --skip quic_packets --skip cli::demo
        cargo_tests 60 wan -p corinth-wan --lib
    else
        cargo_tests 600 unit --workspace --exclude corinth-tests
    fi
    cargo_tests 300 lab -p corinth-tests --lib
    fuzz_lock
    local locked=()
    cargo_tests 120 corpora --manifest-path tests/fuzz/Cargo.toml --target-dir "$target"
}

# suite demo: the demo of the README, to its end
suite_demo() {
    release_binaries && step 180 demo "$target/release/corinth" demo --ci
}

# The programs as people build them, once per run.
release_binaries() {
    ${built:-false} || step 2400 build cargo build "${locked[@]}" --release --workspace --bins && built=true
}
