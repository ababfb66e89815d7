
-- KEYS[1] routes. ARGV: prefix of the ledger keys, row, key that guards the id ("": none),
-- seconds for which it does.
if ARGV[3] ~= '' and not redis.call('SET', ARGV[3], '1', 'NX', 'EX', ARGV[4]) then return 0 end
local t = redis.call('TIME')
ledger_post(ARGV[1], t[1] * 1000000 + t[2], ARGV[2])
return 1
