"""What came from outside and went wrong at 9829fa5, a module per kind (issue 15); `python tests/outside/before.py` shows that it did.

Everything goes through what a user calls: the verb, the Snakefile, the saved files.
"""
