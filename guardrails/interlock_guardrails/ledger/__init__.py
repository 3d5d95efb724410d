"""The ledger: what was asked, decided and done, in a form that shows every later alteration."""
