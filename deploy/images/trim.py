"""Takes out of an image what only a package manager, a builder or a person at a shell would use; each with its reason.

Runs in the build stage of `python.Dockerfile`, on copies: `trim.py base FOLDER`, `trim.py environment FOLDER`. It needs
Python's own library, dpkg for the first and binutils for the second.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PACKAGES: Final[Mapping[str, str]] = {
    "users and logins: there is one user, and nobody logs in": """
        login login.defs passwd adduser libpam-runtime libpam-modules libpam-modules-bin libpam0g libsemanage2
        libsemanage-common libsepol2 libaudit1 libaudit-common libcap-ng0""",
    "disks: a container has none of its own": """
        e2fsprogs libext2fs2 libext2fs2t64 libss2 logsave mount util-linux util-linux-extra bsdutils libblkid1 libmount1
        libsmartcols1 libudev1 liblastlog2-2""",
    "services of a machine; what went before needs them to go": "sysvinit-utils init-system-helpers",
    "Python's installers: the environment is complete": """
        python3-venv python3.11-venv python3.13-venv python3-pip-whl python3-setuptools-whl python3-lib2to3
        python3-distutils""",
    "package managers, and what they alone link: nothing is installed at run time": """
        apt libapt-pkg6.0 libapt-pkg7.0 gpgv sqv debian-archive-keyring libgnutls30 libhogweed6 libhogweed6t64
        libnettle8 libnettle8t64 libp11-kit0 libtasn1-6 libidn2-0 libunistring2 libseccomp2 tar""",
    "Perl, for maintainers' scripts alone, and debconf, which is written in it": "debconf perl-base",
    "what a person at a shell would use; sh and coreutils stay": "bash diffutils mawk ncurses-bin",
    "the installer itself; the list of what is installed stays, for scanners": "dpkg",
}
"""Debian's packages that are purged, in this order; one that a base lacks is passed over."""

LEFTOVERS: Final[Mapping[str, str]] = {
    "what the installers kept for their own next run": """
        var/lib/dpkg/info var/lib/dpkg/available* var/lib/dpkg/*-old var/lib/dpkg/triggers var/lib/apt var/cache/*
        var/log/* etc/apt usr/lib/apt usr/share/perl5 usr/share/keyrings usr/share/debconf usr/share/python-wheels""",
    "character sets of iconv: Python has its own": "usr/lib/*-linux-gnu/gconv",
    "texts for people; licences stay (usr/share/doc/*/copyright)": """
        usr/share/doc/*/[!c]* usr/share/doc/*/changelog* usr/share/man usr/share/info usr/share/locale
        usr/share/lintian usr/share/bash-completion""",
    "Python's own tests, editor, games, installers and what these need": """
        usr/lib/python3.*/test usr/lib/python3.*/pydoc_data usr/lib/python3.*/turtle.py usr/lib/python3.*/ensurepip
        usr/local/lib/python3.*/test usr/local/lib/python3.*/pydoc_data usr/local/lib/python3.*/turtle.py
        usr/local/lib/python3.*/turtledemo usr/local/lib/python3.*/ensurepip usr/local/lib/python3.*/idlelib
        usr/local/lib/python3.*/tkinter usr/local/lib/python3.*/config-3* usr/local/lib/python3.*/site-packages/*
        usr/local/bin/pip* usr/local/bin/idle* usr/local/bin/pydoc* usr/local/include""",
}
"""Paths below the base's root, after the packages are gone."""

UNUSED: Final[Mapping[str, str]] = {
    "tests of others' packages, and their aids for other packages' tests": """
        **/tests **/test sqlalchemy/testing alembic/testing globus_sdk/testing multidict/_testcapi*.so""",
    "sources, headers and archives: nothing is compiled": """
        **/*.pyx **/*.pxd **/*.pxi **/*.c **/*.cc **/*.cpp **/*.h **/*.hpp **/*.a""",
    "types: nothing is checked": "**/*.pyi",
    "NumPy's compiler of Fortran": "numpy/f2py",
}
"""Paths below an environment's site-packages; ours (`stream_*`) are never touched."""

_FORCED: Final = "depends,remove-essential,remove-protected"
"""Never "all": that runs packages' scripts outside the copy, where they remove files of the machine that builds."""
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ELF: Final = b"\x7fELF"


def trim_base(root: Path) -> None:
    """Purge packages and what they leave, in a copy of a base image's root.

    Raises:
        SystemExit: it is this machine's own root.
        subprocess.CalledProcessError: dpkg failed; it has said why.
    """
    if root.resolve() == Path("/"):
        raise SystemExit("trim: / is no copy")
    for names in PACKAGES.values():
        # Nothing that stays needs what goes, but for maintainers' scripts, and those run no more.
        command = ("dpkg", f"--root={root}", "--purge", f"--force-{_FORCED}", *names.split())
        # dpkg and the scripts want programs of these folders, which an image's PATH need not name.
        told = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": _PATH})
        if told.returncode != 0:
            sys.stderr.write(told.stdout + told.stderr)
            told.check_returncode()
    _remove(root, LEFTOVERS)


def trim_environment(environment: Path) -> None:
    """Remove what is unused and strip symbols, in a virtual environment.

    Raises:
        subprocess.CalledProcessError: strip failed; it has said why.
    """
    for packages in environment.glob("lib/python3.*/site-packages"):
        _remove(packages, UNUSED)
    libraries = sorted(path for path in environment.rglob("*.so*") if is_library(path))
    if libraries:
        command = ("strip", "--strip-unneeded", *libraries)
        subprocess.run(command, check=True)


def is_library(path: Path) -> bool:
    """Tell a shared object that is a file of its own, whatever it is called."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_ELF)) == _ELF


def _remove(root: Path, table: Mapping[str, str]) -> None:
    for pattern in " ".join(table.values()).split():
        for path in sorted(root.glob(pattern)):
            if path.relative_to(root).parts[0].startswith("stream_"):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif os.path.lexists(path):  # not so where its folder went just before it
                path.unlink()


def main() -> None:
    """`trim.py base|environment FOLDER`."""
    what, folder = sys.argv[1:]
    {"base": trim_base, "environment": trim_environment}[what](Path(folder))


if __name__ == "__main__":
    main()
