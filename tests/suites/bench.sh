# Figures instead of verdicts. They say something only on a machine that does nothing else.
# shellcheck shell=bash disable=SC2154

# suite bench: the absolute figures: of the tables, and of the gateway beside HAProxy and nginx (as root)
suite_bench() {
    step 3600 bench cargo bench "${locked[@]}" --workspace --bench '*'
    grep -vE '^ +(Blocking|Compiling|Finished|Running)' "$out/bench.log"
    if ((EUID != 0)); then
        skip compare 'network namespaces need root'
    elif ! need python3:python3 iproute2:ip haproxy:haproxy nginx-light:nginx iperf3:iperf3 wrk:wrk openssl:openssl \
        libnginx-mod-stream:/usr/lib/nginx/modules/ngx_stream_module.so; then
        skip compare "$lacking"
    elif step 3600 dist cargo build "${locked[@]}" --profile dist -p corinth-gateway --bins; then
        step 3600 compare perf/compare --gateway "$target/dist/corinth-gateway"
        cat "$out/compare.log"
    fi
}
