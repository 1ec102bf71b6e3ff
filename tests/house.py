"""Count the rooms of the package, the floors that its imports give them and the arrows between them, wing by wing.

`python tests/house.py` prints a line per folder that has others below it: a room is a file or folder in it, an arrow
leads from a room to one that it imports, and a floor stands above all that its rooms import.
"""

from functools import cache

import grimp

START = "dyncollapse.bridge.__main__"  # starts the command line from a folder below it


def count(folder: str) -> tuple[int, int, int]:
    """Rooms, floors and arrows inside a folder, by its dotted name."""
    graph = grimp.build_graph("dyncollapse")
    graph.remove_module(START)
    rooms = sorted(graph.find_children(folder))
    for room in rooms:
        if graph.find_children(room):
            graph.squash_module(room)
    below = {room: graph.find_modules_directly_imported_by(room) & (set(rooms) - {room}) for room in rooms}

    @cache
    def floor(room: str) -> int:
        return 1 + max(map(floor, below[room]), default=0)

    return len(rooms), max(map(floor, rooms)), sum(map(len, below.values()))


if __name__ == "__main__":
    everything = grimp.build_graph("dyncollapse")
    for folder in sorted(name for name in everything.modules if everything.find_children(name)):
        print("{}: {} rooms, {} floors, {} arrows".format(folder, *count(folder)))
