"""The VMM: owner of the network policy, the IP pools and the placement of VMs.

model            what the store holds and what the API takes and gives
store/           SQLite: tables, transactions, the change log
rules/           what each order does, or why it is refused; every order is one transaction
distribution.py  what a host is told, and when
replica.py       the host's side of it: a table kept equal from lines
api/             HTTP: routes, authentication, errors
main.py          the process
"""
