"""How close a trained model comes to the exact posterior of simulated clips, and what it uses on the way.

Three settings, in each of which something else decides what is missing (``settings.py``). In each the model
is trained beside variants without plan, without evidence and without both.
"""
