-- SWEEP settles the calls of one slot whose gateway has died.
--
--   KEYS  open reservations, rows that are owed
--   ARGV  1 slot · 2 ledger's shelf, or empty · 3 most reservations to look at · 4 ms to answer
--         5 seconds that lost calls and owed rows are kept · 6... ids whose owed row has been posted
--
-- Returns {settled, looked at, still open, and for each owed row: id, organisation, row}.

local slot, shelf, most = ARGV[1], ARGV[2], ARGV[3] + 0
for i = 6, #ARGV do
  call('ZREM', KEYS[2], ARGV[i])
  call('DEL', slot .. ':w:' .. ARGV[i])
end
local swept, seen = sweep(slot, shelf, most, ARGV[4], ARGV[5])
local reply, n = {swept, seen, call('ZCARD', KEYS[1])}, 3
if shelf ~= '' then return reply end
for _, rid in ipairs(call('ZRANGE', KEYS[2], 0, most - 1)) do
  local value = call('GET', slot .. ':w:' .. rid)
  if value then
    local org, pos = unpacked('<I2c0', value)
    reply[n + 1], reply[n + 2], reply[n + 3] = rid, org, sub(value, pos)
    n = n + 3
  else
    call('ZREM', KEYS[2], rid)
  end
end
return reply
