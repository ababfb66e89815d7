-- EXTEND takes more for a call that runs, from its hard budgets: all of it, or nothing.
--
--   KEYS  reservation
--   ARGV  1 what more is needed, packed · 2 a word of 16 bytes that no other extension has
--
-- Returns {verdict, now, and for each hard bucket: its number among the call's buckets, level,
-- fraction, us until its time runs on}. The verdict is 1 when it is taken (or was: the same
-- word again changes nothing), 0 when a budget has too little, 3 when the reservation is not
-- open.

local value = call('GET', KEYS[1])
if not value or sub(value, 1, 4) ~= 'open' then return {3, now} end
local requests, input, output, frames, bytes, money = unpacked(COST, ARGV[1])
local need = {[0] = requests, input + output, input, output, frames, bytes, money}
local known = sub(value, WORD, WORD + 15) == ARGV[2]
local pos = TEXTS + 2 + unpacked('<I2', value, TEXTS)
local list, keys = rules(value, pos + 2 + unpacked('<I2', value, pos), #value - 8)
local states, enough = call('MGET', unpack(keys)), true
for i, b in ipairs(list) do
  if b[HARD] == 1 then
    look(b, states[i])
    b[NEED] = need[b[DIM]]
    if b[NEED] > 0 and b[LEVEL] < b[NEED] then enough = false end
  end
end
if enough and not known then
  for _, b in ipairs(list) do
    if b[HARD] == 1 then
      b[LEVEL] = math.max(b[LEVEL] - b[NEED], DEEPEST)
      put(b)
    end
  end
  local a, b, c, d, e, f = unpacked(COST, ARGV[1])
  local A, B, C, D, E, F = unpacked(COST, value, MORE)
  call('SETRANGE', KEYS[1], MORE - 1, pack(COST, a + A, b + B, c + C, d + D, e + E, f + F) .. ARGV[2])
end
local reply, n = {(known or enough) and 1 or 0, now}, 2
for i, b in ipairs(list) do
  if b[HARD] == 1 then
    reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = i - 1, b[LEVEL], b[FRACTION], b[AT] - now
    n = n + 4
  end
end
return reply
