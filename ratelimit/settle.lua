-- SETTLE replaces what a call has taken by what it used, and posts its row. Only the first
-- settlement of an id counts. An id without a reservation changes no bucket: its row is posted,
-- and a marker says so.
--
--   KEYS  reservation, open reservations
--   ARGV  1 id, escaped · 2 what was used, packed · 3 row, or empty · 4 ledger's shelf; empty: no
--         row is posted here and no marker left · 5 seconds that the id is remembered
--         6 "undo": the reservation never was · 7 the buckets' rules, if they have changed
--
-- Returns 1 if it was open, 2 if it was ended already, 3 if it is unknown.

local rkey, row, shelf, keep, undo = KEYS[1], ARGV[3], ARGV[4], ARGV[5], ARGV[6] == 'undo'
local value = call('GET', rkey)
local open = is_open(value)
if value and not open then return 2 end
if undo then
  if open then finish(rkey, value, KEYS[2], ARGV[1], ARGV[2]) end
  return open and 1 or 3
end
if open then
  finish(rkey, value, KEYS[2], ARGV[1], ARGV[2], 'settled', keep, ARGV[7])
elseif shelf ~= '' then
  call('SET', rkey, 'settled', 'EX', keep)
end
if row ~= '' and shelf ~= '' then ledger_post(shelf, now, row) end
return open and 1 or 3
