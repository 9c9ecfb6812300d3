//! Docker Engines that stop, hang or lose events.
