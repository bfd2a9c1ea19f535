"""The numbered statements about network virtualization, each shown on a real lab.

::

    statements   what is claimed and on which lab it is shown: data
    runner       runs the checks, collects verdicts       labs     builds and ends the labs
    scene        a lab as a check sees it                 cast     who can play which part
    frames       frames to send                           probes   ways to send them
    observe      captures                                 oracle   what tshark reads in them
    checks_...   one function for each statement: evidence, or Failed
    report       JSON, JUnit                              forwarding   an extension for one statement
"""
