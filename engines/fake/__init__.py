"""A deterministic engine that serves vLLM's routes over real HTTP, for fault injection, tests and benchmarks. It has no model.

Vocabulary: id 0-255 is that byte, 256 ends the answer. `python -m engines.fake --help` lists its faults.
"""
