"""Which texts is a quantised model made with, and which is it judged by? Two sets that share no sentence. Pure.

Both were written for this purpose: questions, orders, reports, chat, lists, code, numbers, other scripts, and long paragraphs made of
several short ones, since a serving model sees all of these. Ranges of activations come from `CALIBRATION` (or the user's own file), and
every figure of accuracy comes from `EVALUATION`.
"""

from __future__ import annotations

from collections.abc import Sequence

_CALIBRATION = """\
I like you. I love you
where can I change my delivery address
The ferry leaves at nine and takes forty minutes when the wind is from the west.
Refund not received after 14 days, order number 88-20417, please escalate.
ok
How do I boil an egg so that the yolk stays soft?
Our quarterly revenue rose by 12.4 % to 318 million, while operating costs fell slightly.
for (int i = 0; i < n; ++i) { total += weights[i] * inputs[i]; }
The patient reports intermittent headaches, mild nausea and sensitivity to light since Tuesday evening.
WARNING: disk /dev/sda1 is 97% full; oldest snapshots will be removed tonight
She closed the book, looked out of the window for a long while, and said nothing at all.
Best hiking boots for wide feet under 150 euros?
The court held that the clause was void because it deprived the tenant of any remedy whatsoever.
Photosynthesis turns carbon dioxide and water into sugar and oxygen with the energy of light.
lol that was sooo bad, never watching this again!!!
Add two cups of flour, a pinch of salt and the melted butter; knead until the dough no longer sticks.
Which of the planets has the shortest day?
The bridge, finished in 1931, carries six lanes of traffic and two railway tracks over the strait.
Dear Sir or Madam, I am writing to apply for the position advertised in last Friday's paper.
Der Zug nach Bremen fährt heute von Gleis sieben ab.
El gato duerme sobre la mesa mientras llueve en la calle.
SELECT name, SUM(amount) FROM orders WHERE placed > '2024-01-01' GROUP BY name ORDER BY 2 DESC;
A neural network with a single hidden layer can approximate any continuous function on a compact set.
The goalkeeper parried the first shot but could do nothing about the rebound.
Can you explain the difference between a mutex and a semaphore in simple words?
Temperature 21.5, humidity 48 %, pressure 1013 hPa, wind 3 m/s from the north-east
Nobody expected the old lighthouse to survive the storm, yet in the morning its lamp still turned.
Buy milk, eggs, bread, batteries (AA), and something nice for Grandma
The enzyme cleaves the peptide bond next to lysine and arginine residues.
Please cancel my subscription at the end of this month and confirm by mail.
The committee will meet again on 3 March to vote on the amended budget.
It's not the camera that makes the picture; it's whoever stands behind it.
京都の秋はとても美しいです。
Unsupported operand type(s) for +: 'int' and 'str' in line 42 of report.py
He plays the violin the way other people breathe.
What time does the museum open on public holidays, and is there a discount for students?
"""

_SHORT = """\
hello
thank you so much
cheap hotels
Is it raining?
no
red running shoes
Why?
never again
capital of Peru
call me back
good morning everyone
noise cancelling headphones
42
what a day
train times
It works!
broken screen
stop
banana bread recipe
who knows
see attached
not available
python list sort
Merci beaucoup
out of stock
very happy with it
Room 204
free parking nearby
the end
back pain at night
two tickets please
Error 404
my card was declined
yesterday
wet paint
"""

_EVALUATION = """\
The weather is lovely today.
how to reset my password
Two dogs are running across a snowy field towards their owner.
Shares of the carmaker dropped nine percent after it recalled 400,000 vehicles.
yes please
What causes the northern lights, and where are they seen most often?
def mean(values): return sum(values) / len(values) if values else 0.0
The vaccine trial enrolled 2,315 volunteers in eleven countries; no serious side effects were seen.
ERROR 503: upstream connect failure, retry in 30 s (attempt 4 of 5)
His grandfather had built the boat with his own hands, plank by plank, over three winters.
Cheap flights from Lisbon to Toronto in early autumn
The defendant pleaded guilty to two of the five charges and was released on bail.
Water expands when it freezes, which is why pipes burst in hard winters.
worst customer service EVER, i waited 3 hours and they hung up on me :(
Slice the onions thinly, fry them slowly in olive oil, and deglaze with a splash of vinegar.
Who painted the ceiling of the Sistine Chapel?
The tunnel is 57 kilometres long and lies up to 2,300 metres below the surface of the mountain.
Hi Tom, could we move our call to half past three? Something has come up at school.
La bibliothèque est fermée le lundi matin.
O preço do café subiu muito este ano.
git rebase --interactive HEAD~3 && git push --force-with-lease
Entropy measures how many microscopic arrangements look the same from far away.
The striker signed a four-year contract and will wear the number nine.
Is it safe to mix bleach with other cleaning products?
Latitude 48.2082, longitude 16.3738, altitude 171 m
A small fox trotted along the hedge, stopped, listened, and vanished into the dark.
Passport, charger, sunscreen, two novels, rain jacket
Mitochondria carry their own small ring of DNA, inherited from the mother.
I would like to return this jacket because the zip broke on the first day.
Parliament passed the bill late on Thursday with a majority of only three votes.
Patience is what you have when there are too many witnesses.
Где находится ближайшая аптека?
Segmentation fault (core dumped) after upgrading the graphics driver
Her voice filled the empty hall long after the orchestra had packed up.
Do trains still run to the airport after midnight at weekends?
The recipe says forty minutes, but in my oven it takes closer to an hour.
"""


def _with_longer(lines: Sequence[str]) -> tuple[str, ...]:
    """The lines, and paragraphs of 4, 8 and 16 of them: about 60, 130 and 260 tokens."""
    longer = [
        " ".join(lines[at : at + count]) for count in (4, 8, 16) for at in range(0, len(lines) - count + 1, count)
    ]
    return (*lines, *longer)


CALIBRATION: tuple[str, ...] = (*_SHORT.splitlines(), *_with_longer(_CALIBRATION.splitlines()))
"""Many are short: in a text of three tokens every error counts, and its own tokens are few among those of the long ones."""
EVALUATION: tuple[str, ...] = _with_longer(_EVALUATION.splitlines())


def texts_of(document: str) -> tuple[str, ...]:
    """The texts of a user's own calibration file: one per line, empty lines left out."""
    return tuple(line.strip() for line in document.splitlines() if line.strip())
