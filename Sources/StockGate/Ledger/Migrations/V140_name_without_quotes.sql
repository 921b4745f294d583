-- The ledger's name is the same in every session: a database that has quote_all_identifiers on would put quotes into it, and Redis' data would be another ledger's.
alter function stock_ledger_name() set quote_all_identifiers = off;
