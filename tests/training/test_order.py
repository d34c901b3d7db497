"""The order of samples is a function of the recipe: shuffled epochs, and batches of like length."""

from videollm.training.order import InOrder, LengthGrouped, Revisited


class Numbers:
    visits = 0

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return index, self.visits


def test_each_epoch_has_every_sample_once_in_an_order_of_its_own():
    numbers = Numbers()
    row = Revisited(numbers, seed=3, visited=numbers)
    epochs = [[row[7 * epoch + step] for step in range(7)] for epoch in range(3)]
    orders = [[index for index, _ in epoch] for epoch in epochs]
    assert all(sorted(order) == list(range(7)) for order in orders) and len(set(map(tuple, orders))) == 3
    # Visits are positions, whoever asks in whatever order: a run that goes on says what it would have said.
    assert row[12] == epochs[1][5] and epochs[1][5][1] == 12
    assert Revisited(numbers, seed=4)[0][0] != orders[0][0] or Revisited(numbers, seed=4)[1][0] != orders[0][1]


def length(position):
    return position * 7919 % 101


def test_steps_are_of_like_length_and_no_sample_leaves_its_window():
    order = LengthGrouped(320, step=8, length=length, seed=0, window=10)
    positions = list(order)
    assert sorted(positions) == list(range(320)) and len(order) == 320 and positions == list(order)
    for first in range(0, 320, 80):
        assert sorted(positions[first : first + 80]) == list(range(first, first + 80))
    steps = [positions[first : first + 8] for first in range(0, 320, 8)]

    def padding(rows):
        return sum(max(map(length, row)) * len(row) - sum(map(length, row)) for row in rows)

    plain = list(InOrder(320))
    assert padding(steps) < 0.2 * padding([plain[first : first + 8] for first in range(0, 320, 8)])
    # Not from short to long.
    means = [sum(map(length, step)) for step in steps[:10]]
    assert means != sorted(means)
    assert list(LengthGrouped(320, step=8, length=length, seed=1, window=10)) != positions


def test_a_last_window_that_is_not_full():
    positions = list(LengthGrouped(88, step=8, length=length, seed=0, window=10))
    assert sorted(positions) == list(range(88)) and set(positions[80:]) == set(range(80, 88))
