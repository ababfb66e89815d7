-- CHARGE takes what a gateway has admitted on its own, while it could not reach this Redis,
-- from exactly the buckets that it would have been taken from. They may go into debt. The
-- same id again changes nothing.
--
--   KEYS  marker of the id, then buckets
--   ARGV  1 seconds that the id is remembered · 2 rules of the buckets, packed; what is needed
--         of each is the charge, and less than 0 is given back
--
-- Returns 1 if it was charged, 0 if it had been before.

if call('EXISTS', KEYS[1]) == 1 then return 0 end
local list, keys = rules(ARGV[2], 1, #ARGV[2])
local states = call('MGET', unpack(keys))
call('SET', KEYS[1], '', 'EX', ARGV[1])
for i, b in ipairs(list) do
  look(b, states[i])
  b[LEVEL] = math.max(b[LEVEL] - b[NEED], DEEPEST)
  if b[LEVEL] >= b[FULL] then b[LEVEL], b[FRACTION] = b[FULL], 0 end
  put(b)
end
return 1
