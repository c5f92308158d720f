"""Is it the mask, the initial weights or both that let a small part of a network train as well as the whole?"""

from overparam.studies.lottery_ticket.designs import DESIGNS
from overparam.studies.study import Study

LOTTERY_TICKET = Study(
    name="lottery_ticket",
    title="Lottery tickets",
    question="Does a pruned network, put back to its first weights, train as well as the whole, and what makes it?",
    background=(
        "A ticket is what magnitude pruning leaves of a trained network, put back to the weights it had at the start "
        "and trained again. Iterative pruning repeats that; pruning at once does not. What a ticket owes to its mask, "
        "to the shares it keeps of each layer, to its initial weights and to their signs is told by controls that keep "
        "one and redraw the other, each with the same number of weights. Arms that denote the same runs are run once: "
        "the dense network is the first level of the ticket's arm, and the control of pruning at once is the ticket "
        "itself where it has had one round."
    ),
    factor="remaining weights, %",
    designs=DESIGNS,
)
