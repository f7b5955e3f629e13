"""What libraries raise when they read damaged content, and their message on one line.

A damaged file can make zipfile, pickle, NumPy, PyTorch and json fail in nearly every way: an index beyond the end, a type that has no such
method, a size that no memory holds. At the boundary where a file is read, each of these means that the file cannot be used.
"""

import lzma
import pickle
import struct
import tarfile
import tokenize
import zipfile
import zlib

READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
    struct.error,
    pickle.PickleError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
)
LONGEST_REASON = 200  # characters


def describe_reason(error: BaseException) -> str:
    """The message of an exception on one line, at most LONGEST_REASON characters; its type where it has no message."""
    text = " ".join(str(error).split()) or type(error).__name__
    printable = "".join(char if char.isprintable() else "?" for char in text)
    return printable if len(printable) <= LONGEST_REASON else f"{printable[: LONGEST_REASON - 3]}..."
