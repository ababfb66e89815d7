-- SETTLE replaces what a call has taken by what it used, and posts its row. Only the first
-- settlement of an id counts. One whose gateway was taken for dead and lives after all is
-- corrected: its buckets, and by a second row the one of its loss. An id without a reservation
-- changes no bucket: its row is posted, and a marker says so.
--
--   KEYS  reservation, open reservations, then the buckets and places of the reservation, in its order
--         (others are looked for)
--   ARGV  1 id, escaped · 2 what was used, packed · 3 row, or empty · 4 ledger's shelf; empty: no
--         row is posted here and no marker left · 5 seconds that the id is remembered
--         6 "undo": the reservation never was; "lost": the row is that of a call whose gateway
--         died, swept where there is no ledger; "granted": there was a reservation, so that an
--         unknown id is marked here, too; "late": it may have been settled and forgotten, so that an
--         unknown id changes nothing · 7 the buckets' rules, if they have changed
--
-- Returns 1 if it was open or is corrected, 2 if it was ended already, 3 if it is unknown, 4 if it
-- is unknown and late.

local rid, used, row, shelf, keep, mode, newer = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local keys, states, to = KEYS, call('MGET', unpack(KEYS))
local value = states[1]
local state = value and sub(value, 1, 4)
if mode == 'undo' then
  if state ~= 'open' then return value and 2 or 3 end
  row, newer = '', nil
else
  if value == 'unknown' then return 3 end
  if not value and mode == 'late' then return 4 end
  if value and state ~= 'open' and (state ~= 'lost' or mode == 'lost') then return 2 end
  to = 'settled'
end
if value then
  if state == 'lost' and row ~= '' and shelf ~= '' then
    -- What the row has beyond the one that was posted when the call was taken for lost: a row of no
    -- call, whose amounts may be less than 0.
    local r, i, o, f, _, m = unpacked(COST, value, USED)
    local _, requests, input, cached, output, reasoning, frames, money, _, micros = unpacked(ledger_format, row, 2)
    row = sub(row, 1, 1) .. pack(ledger_format, 0, requests - r, input - i, cached, output - o, reasoning,
      frames - f, money - m, 0, micros) .. sub(row, 82)
  end
  --#finish
elseif mode == 'lost' then
  -- For the reservation of a lost call whose row is posted here and whose buckets are elsewhere
  -- stands one without rules.
  local _, requests, input, _, output, _, frames, money = unpacked(ledger_format, row, 2)
  local paid = 'lost0' .. pack(COST, requests, input, output, frames, 0, money) .. string.rep('\0', COST_SIZE + 28)
  call('SET', KEYS[1], paid, 'EX', keep)
elseif shelf ~= '' or mode == 'granted' then
  call('SET', KEYS[1], 'unknown', 'EX', keep)
end
if row ~= '' and shelf ~= '' then ledger_post(shelf, now, row) end
return value and 1 or 3
