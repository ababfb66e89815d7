-- Part finish: replaces what an open reservation took, or what a lost one was settled at, by what
-- was used, frees its places and leaves only its new state behind, or nothing. The first write
-- frees memory: Redis then lets a script finish even at its memory limit.
--
-- value is the reservation, rid its id, used packed, to its new state, keep for how many seconds.
-- keys are the reservation, the open ones, and what should be its buckets, states what is there; a
-- bucket that is none of them is read here. newer are the rules as they are by now, packed, if they
-- have changed.
--
-- What was taken in an earlier calendar period does not come back to a bucket of this one; below 0
-- it is owed.
local function by_dimension(cost, pos)
  local requests, input, output, frames, bytes, money = unpacked(COST, cost, pos)
  return {requests, input + output, input, output, frames, bytes, money} -- the first is dimension 0
end

local rules, pos, last = newer or value, 1, newer and #newer
if not newer then
  pos = TEXTS + 2 + unpacked('<I2', value, TEXTS)
  pos, last = pos + 2 + unpacked('<I2', value, pos), #value - 8
end
local before, n, anew = sub(value, 1, 4) == 'lost' and by_dimension(value, USED), 2
local costs = by_dimension(used, 1)
while pos < last do
  local kind, dim, hard, amount, full, period, need, key, next = unpacked(RULE, rules, pos)
  pos, n, dim = next, n + 1, dim + 1
  if keys[n] ~= key then keys[n], states[n] = key, kind ~= PLACES and call('GET', key) end
  local back = kind ~= PLACES and (before and before[dim] or need) - costs[dim]
  if hard == 1 and back and not before then back = back + by_dimension(value, MORE)[dim] end
  if not back then
    states[n] = true
  elseif back == 0 then
    states[n] = false
  else
    local state = states[n]
    --#refill
    if back > 0 and kind ~= STEADY and older(kind, unpacked('<d', value, #value - 7), at) then back = 0 end
    level = level + back
    if level >= full then
      level, fraction = full, 0
    elseif level < DEEPEST then
      level = DEEPEST
    end
    --#lasting
    if longer then
      anew = anew or {}
      anew[n] = expiry
    end
    states[n] = pack(BUCKET, level, fraction, at, expiry)
  end
end
call('ZREM', keys[2], rid)
for i = 3, n do
  local state = states[i]
  if state == true then
    call('ZREM', keys[i], rid)
  elseif state and anew and anew[i] then
    call('SET', keys[i], state, 'PX', math.ceil((anew[i] - now) / 1000))
  elseif state then
    call('SETRANGE', keys[i], '0', state)
  end
end
if to then call('SET', keys[1], to, 'EX', keep) else call('DEL', keys[1]) end
