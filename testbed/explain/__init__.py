"""Why one VM does not reach another: the questions in their order, and the most likely cause.

::

    subject.py    whom it is about: both ends, what their hosts say, what the VMM knows
    nodes.py, owner.py, ends.py, wires.py, policy.py, dry.py     what only reads
    provider.py, injection.py, reach.py                         what sends something and looks for it
    runner.py     asks in order, stops when the cause is certain, and says the sentence

A question is a generator: it yields what was asked and what was said (``Evidence``), and a ``Cause`` for what
explains a fault (testbed.explain.model). Nothing of the lab is changed.
"""
