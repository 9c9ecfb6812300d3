//! Agents that die at every step, sleep, lose their disk or their clock, or are cloned.
