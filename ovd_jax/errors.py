"""Errors that end a program with one line."""


class UserError(ValueError):
    """The command, the config, the data or the environment is wrong.

    The message names what is wrong, its value, and what to do. `flags.run` prints it as
    one line; any other ValueError is a fault of the program and shows its traceback.
    """


class TeacherError(RuntimeError):
    """The teacher gave no usable answer; the message says which and what to do."""


class EnvError(RuntimeError):
    """An environment raised; the message says on what text."""


class UsageError(Exception):
    """The command line or the config file is wrong; the message says how."""
