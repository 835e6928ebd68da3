"""Hyperparameter search for compressing language models.

Importing this package loads neither torch nor ray nor dash; see ``hpo --help`` for the commands.
"""

__version__ = "0.1.0"
