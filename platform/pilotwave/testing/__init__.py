"""Contract suites that every implementation of a contract passes, and fault-injecting parts."""
