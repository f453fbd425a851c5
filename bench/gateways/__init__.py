"""The gateway benchmarks' parts: the mock engine and the load generator, the gateways under test, the measurements, the tables."""
