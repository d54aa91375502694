"""Which task or mixture a name means: first those registered here, then seqio's."""

from typing import Any

from t5x.data.seqio import bridge
from t5x.data.tasks import Mixture, Task, get_mixture_or_task


def find(name: str | Task | Mixture | Any) -> Task | Mixture | bridge.NativeSource:
    """Return the task or mixture of a name, or an object given as itself.

    Args:
      name: registered here or, if the program has imported seqio, there; or a task or mixture of
        either.

    Raises:
      ValueError: a name that neither has, with «did you mean».
    """
    try:
        return get_mixture_or_task(name)
    except ValueError:
        native = bridge.find(name)
        if native is None:
            raise
        return native


def find_provider(name: str | Task | Mixture | Any) -> Any:
    """As `find`, but what seqio has comes as seqio's own `Task` or `Mixture`."""
    found = find(name)
    return found.provider if isinstance(found, bridge.NativeSource) else found
