# Figures instead of verdicts. They say something only on a machine that does nothing else.
# shellcheck shell=bash disable=SC2154

# suite bench: the absolute figures: of tables and control planes, and of the gateway beside whatever else is installed (as root)
suite_bench() {
    step 3600 bench cargo bench "${locked[@]}" --no-fail-fast --workspace --bench '*'
    grep -vE '^ +(Blocking|Compiling|Finished|Running)' "$out/bench.log"
    if ((EUID != 0)); then
        skip compare 'network namespaces need root'
    elif ! need iproute2:ip util-linux:setpriv haproxy:haproxy; then
        # Others that are not installed are reported as not measured.
        skip compare "$lacking"
    elif step 3600 dist cargo build "${locked[@]}" --profile dist -p corinth-gateway -p corinth-perf --bins; then
        step 3600 compare "$target/dist/corinth-perf" compare --gateway "$target/dist/corinth-gateway"
        cat "$out/compare.log"
        cargo_tests 900 throttled -p corinth-perf --test compare -- --ignored
    fi
    # Whether our loads say what others say of the same path.
    if ! need iperf3:iperf3 sockperf:sockperf; then
        skip agreement "$lacking"
    else
        cargo_tests 900 agreement -p corinth-load --test agreement -- --ignored --nocapture --test-threads 1
        grep -E 'iperf3|sockperf' "$out/agreement.log"
    fi
}
