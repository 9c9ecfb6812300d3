//! Two hundred Operations on three hosts under random faults: nothing lost, nothing twice.
