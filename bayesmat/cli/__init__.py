"""The thin command line: each command is one public call."""

from ._main import (
    main as main,
    parser as parser,
)
