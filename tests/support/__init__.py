"""What tests share: the simulator, real peers, and faults."""
