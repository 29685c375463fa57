//! `corinth-perf`: measures what a gateway costs, and gives it a network to run on.

fn main() -> anyhow::Result<()> {
    anyhow::bail!("nothing can be measured yet")
}
