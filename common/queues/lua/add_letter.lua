--[[ Adds a dead letter, once for a mark.

  KEYS[1] dead letters (STREAM)   KEYS[2] mark (STRING)
  ARGV[1] letters to keep   ARGV[2] seconds to keep the mark   ARGV[3..] fields, flat
  Returns 1 if it was added, 0 if it had been before. ]]
if not redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[2]) then
  return 0
end
local letter = {}
for i = 3, #ARGV do
  letter[#letter + 1] = ARGV[i]
end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(letter))
return 1
