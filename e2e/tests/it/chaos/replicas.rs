//! Replicas that die, leaders that flap, agents that all come back at once.
