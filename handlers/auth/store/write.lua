-- Does edits, each if the key is still the one that it was made from.
-- KEYS: records (by id: version, tag and stored form, with
--   spaces between), log (ids by the revision of their
--   last edit), meta (rev, tag, pepper), tags (by revision)
-- ARGV: fingerprint of the pepper, channel, tag of this call, how many tags are kept, then for
--   each edit: id, version that it replaces, record
-- Returns for each edit that is done the revision that it made, 0 for each that conflicts.
local pepper = redis.call('HGET', KEYS[3], 'pepper')
if not pepper then
  redis.call('HSET', KEYS[3], 'pepper', ARGV[1])
elseif pepper ~= ARGV[1] then
  return redis.error_reply('PEPPER the keys are for another one')
end
local done, wrote = {}, false
for i = 5, #ARGV, 3 do
  local id, was, record = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local have = redis.call('HGET', KEYS[1], id)
  if have == record then -- the tag too: it is this very call
    done[#done + 1] = tonumber(redis.call('ZSCORE', KEYS[2], id)) -- the answer was lost
  elseif (have and string.match(have, '^%d+') or '0') ~= was then
    done[#done + 1] = 0
  else
    local rev = redis.call('HINCRBY', KEYS[3], 'rev', 1)
    redis.call('HSET', KEYS[1], id, record)
    redis.call('ZADD', KEYS[2], rev, id)
    redis.call('HSET', KEYS[4], string.format('%d', rev), ARGV[3])
    redis.call('HDEL', KEYS[4], string.format('%d', rev - tonumber(ARGV[4])))
    done[#done + 1], wrote = rev, true
  end
end
if wrote then
  redis.call('HSET', KEYS[3], 'tag', ARGV[3])
  redis.call('PUBLISH', ARGV[2], 'changed')
end
return done
