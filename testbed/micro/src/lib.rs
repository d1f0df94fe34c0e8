//! What the pieces of the stack cost, one at a time, beside the budgets of the design.
//!
//! Time comes from criterion (`benches/micro.rs`), instructions from callgrind, because the machines
//! that this runs on are shared: other work changes the time of a piece of code, never its
//! instructions. `scripts/bench-micro` does both and prints the table.
//!
//! - [`case`]: what a case is.
//! - [`cases`]: all of them, one module per layer.
//! - [`instructions`]: counts a case's instructions by running it under callgrind.
//! - [`time`]: reads what criterion measured.
//! - [`budget`]: the budgets, and how the figures stand to them.
//! - [`allocations`]: counts allocations: the steady state has none.

pub mod allocations;
pub mod budget;
pub mod case;
pub mod cases;
pub mod instructions;
pub mod time;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;
