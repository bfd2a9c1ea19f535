"""Pictures of labs: a pure model, made from a Plan and perhaps live state, and its forms.

::

    Plan, Live -> build -> Graph -> text                     for people
                                 -> JSON                     for programs
                                 -> dot -> render (Graphviz) SVG, PNG
                                                 -> page     one HTML file
"""
