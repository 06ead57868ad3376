"""Fuzzing: generators of hostile input, and the judgement of how the package meets it."""
