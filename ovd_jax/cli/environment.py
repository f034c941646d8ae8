"""Explains errors of the environment: disks, files and their rights."""

import errno
import os
from collections.abc import Iterator

_SPACE = "free some space: the same command goes on from the last checkpoint"
_RIGHTS = "name a folder that you may write to, or change its rights"
_KIND = "a file is where a folder must be, or a folder where a file: name another path"
REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _SPACE,
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENOTDIR: _KIND,
    errno.EISDIR: _KIND,
    errno.EEXIST: _KIND,
    errno.ENOTEMPTY: _KIND,
    errno.ENOENT: "name one that is there",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.ELOOP: "a link leads to itself: name another path",
    errno.EBUSY: "something uses it: name another path",
    errno.EIO: "the disk fails",
    errno.ESTALE: "the disk fails, or is away",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
# What other languages' libraries say of a disk in errors of their own.
_FOREIGN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def said_of(error: BaseException) -> str:
    """One line on an error of disks or files, with a remedy; empty for any other."""
    for each in _causes(error):
        if isinstance(each, OSError) and each.errno in REMEDIES:
            where = each.filename2 or each.filename
            named = (
                f"{os.fspath(where)}: " if isinstance(where, str | os.PathLike) else ""
            )
            return f"{named}{os.strerror(each.errno)}; {REMEDIES[each.errno]}."
        for number in _FOREIGN:
            if os.strerror(number) in str(each):
                text = " ".join(str(each).split())
                return f"{text[:300]}; {REMEDIES[number]}."
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__
