-- When the row was written, not when its transaction began: the delay to the broker counts from it.
alter table outbox alter column created_at set default clock_timestamp();
