"""Read `.npz` files of arrays, never unpickled, with sizes that the file can hold."""

import math
import os
import zipfile
from pathlib import Path

import numpy as np

from t5x.checkpoints.errors import CheckpointError
from t5x.checkpoints.sizes import Budget


def load_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Return the arrays of an `.npz` file by name.

    Raises:
      CheckpointError: not such a file, one of pickled objects, or an array whose header claims
        more than the file holds; names the file and the array.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.")
    budget = Budget(path)
    name = ""
    try:
        with zipfile.ZipFile(path) as archive:
            found = {}
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                found[name] = _read(archive, info, budget, f"{path}: {name}")
            return found
    except CheckpointError:
        raise
    except Exception as error:  # numpy and zipfile raise any of a dozen
        where = f"{path}: {name}" if name else str(path)
        raise CheckpointError(f"{where}: not an .npz file of arrays ({error}).") from error


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget, what: str) -> np.ndarray:
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise CheckpointError(f"{what}: version {version} of .npy is not read.")
        shape, fortran_order, dtype = read_header(file)
        if dtype.hasobject:
            raise CheckpointError(f"{what}: holds pickled objects, which are not read.")
        budget.take(shape, dtype, what)
        size = math.prod(shape) * dtype.itemsize
        data = file.read(size + 1)
    if len(data) != size:
        raise CheckpointError(f"{what}: has other than the {size} bytes of {shape} of {dtype}.")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C").copy()
