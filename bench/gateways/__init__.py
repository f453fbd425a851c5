"""What `bench/gateway.py` is made of: the mock engine and the load, the gateways under test, the measurements, the tables."""
