"""A matrix of test runs: which suites on which topologies, engines and settings, and what came of each.

::

    file    a matrix file -> axes, with the line of each value
    cells   axes, exclude, include -> cells, each checked against its topology
    budget  how many cells at once: processors and memory
    run     cells as processes of their own, each with a state folder and a deadline
    report  what came of it: JUnit XML, JSON, Markdown
"""
