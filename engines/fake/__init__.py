"""A deterministic engine over real HTTP that speaks vLLM's routes: for faults, tests and benchmarks. It is no model.

Vocabulary: id 0-255 is that byte, 256 ends the answer. `python -m engines.fake --help` lists its faults.
"""
