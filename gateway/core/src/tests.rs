//! The core as its owner sees it. `lab` builds the fixtures; `properties` compares with naive models.

mod admission;
mod health;
mod lab;
mod peers;
mod plans;
mod properties;
mod tables;
